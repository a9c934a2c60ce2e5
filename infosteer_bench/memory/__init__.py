"""The mathematics of key-value memory (paper sections 3 and 4): tensors in, tensors out; knows no trainer.

Shapes: B batch, T tokens, F FFN width (d_m in the paper), L layers. Everywhere k, of shape (B, T, F), is the
input of `down_proj`: the key coefficients of FFN(h) = sum_i k_i v_i.
"""
