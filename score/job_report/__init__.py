"""The closing report of a long job: its rate, what failed and why, which images are copies."""
