"""Side-by-side measurements, run by `make bench`; nothing in lit_cls imports them."""
