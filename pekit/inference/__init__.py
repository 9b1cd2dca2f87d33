"""Prediction.

predict.py      slice probabilities of a volume and of a store
features.py     slice features, for study heads
landmarks.py    errors of located landmarks in mm
study_head.py   probabilities by a study head
openvino.py     the same numbers, faster on a CPU
export.py       files for ONNX Runtime and OpenVINO
"""
