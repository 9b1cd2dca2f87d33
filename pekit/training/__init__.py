"""Training of landmark networks, hops and study heads.

settings.py     settings of a training
recipe.py       losses, optimiser, learning rate (section IV)
loaders.py      data loaders
loop.py         the training loop
finite.py       a loss that is not finite ends all processes
fit.py          `fit` trains landmark networks and hops
study_head.py   `fit_head` trains study heads
resume.py       what a folder remembers: checkpoints to resume from, and that a training has ended
cost.py         time, memory and disk of a training, estimated before it starts
summary.py      shapes and parameters of a network's parts
speed/          stacks per second on this machine: `make speed`
"""
