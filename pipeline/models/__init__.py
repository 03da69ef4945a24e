"""Networks: teachers, the CNN+LSTM assistant, the plain CNN student."""
