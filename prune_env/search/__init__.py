"""Search: what proposes plans, the loop that runs it, and the policies that it leaves behind."""
