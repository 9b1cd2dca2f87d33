"""Training: landmarks, hops, study heads.

settings.py     what may be set
recipe.py       losses, optimiser, learning rate (section IV)
loaders.py      data loaders
loop.py         the training loop and its speed
fit.py          landmarks and hops: `fit`
study_head.py   study heads: `fit_head`
resume.py       checkpoints of a training that goes on after a kill
cost.py         what a training will take, measured before it runs
summary.py      a network's parts: shapes and parameters
"""
