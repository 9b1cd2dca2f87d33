"""Prediction.

predict.py      slice probabilities of a volume and of a store
pytorch.py      prediction by PyTorch, on a CPU or a GPU
openvino.py     prediction by OpenVINO, faster on a CPU
export.py       export to ONNX and OpenVINO
features.py     slice features for study heads, kept while predicting
study_head.py   probabilities by a study head
landmarks.py    predicted landmarks and their errors in mm
"""
