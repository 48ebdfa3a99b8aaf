"""Labels by hand for the blur network: people look at photos and say which blur they see.

`store` keeps the labels, `results` compares annotators and writes the table that `curate train-blur` reads,
`page` asks. Only `page` needs gradio; nothing here needs torch.
"""
