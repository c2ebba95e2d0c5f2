"""Parameters and answers, declared once, and the documents made from them."""
