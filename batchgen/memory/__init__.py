"""What fits: the policy, and the meters that show what it took."""
