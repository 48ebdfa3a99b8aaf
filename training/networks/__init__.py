"""The networks of a run: built, adapted by LoRAs, spread over ranks."""
