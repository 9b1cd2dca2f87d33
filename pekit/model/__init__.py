"""Networks; the K-hop network itself is in pekit/hop.py.

encoder.py        any timm encoder on windowed stacks
encoder3d.py      3D encoders
x3d.py            X3D, a 3D video network
landmark_net.py   encoder and three ResNet18 heads that locate 20 landmarks
study_head.py     sequence models over a study's slices
prevalence.py     correct probabilities from one prevalence of PE among slices to another
"""
