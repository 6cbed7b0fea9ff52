"""Training and evaluation: `edgeseg.engine.train.train`, `edgeseg.engine.evaluate.evaluate`."""
