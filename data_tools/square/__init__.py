"""Square: questions, answers and reasons about pictures, made by a model and filtered by evaluation and consistency
(the pipeline of TextSquare, arXiv 2404.12803)."""
