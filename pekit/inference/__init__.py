"""Prediction.

predict.py      slice probabilities of a volume and of a store
openvino.py     prediction by OpenVINO, faster on a CPU
export.py       export to ONNX and OpenVINO
features.py     slice features, for study heads
study_head.py   probabilities by a study head
landmarks.py    predicted landmarks and their errors in mm
"""
