"""What a sweep saves, and loses, with a forecast that learns from it, beside pruners that exist."""
