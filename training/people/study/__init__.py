"""The human study: people see two clips of one prompt side by side, ours and a baseline's, and choose.

`sweeps` makes a manifest from an evaluation and `manifest` reads it, `draw` chooses the questions, `store`
keeps the votes, `page` asks, `results` and `plot` count. Only `page` needs gradio; nothing here needs torch.
"""
