"""Networks outside training: the runtimes that compute them."""
