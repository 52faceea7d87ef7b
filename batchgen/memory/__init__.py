"""What fits into memory: figures, costs, and the policy that is chosen by them."""
