"""The model: log-mel front end, augmentation, network, and weights files. Architecture code is here, not in models/.

May import `tagging.data` and everything before it. Waveforms come in as int16 batches on the device; logits of each
class go out.
"""
