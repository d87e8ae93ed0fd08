"""DeepLabV2 on pseudo masks: training, test, dense CRF, scores."""
