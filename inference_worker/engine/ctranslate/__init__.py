"""CTranslate2 behind the Engine protocol, built from a safetensors checkpoint without torch or
transformers: numpy, safetensors and ctranslate2 are all it needs."""
