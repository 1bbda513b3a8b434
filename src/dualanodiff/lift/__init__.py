"""What does a generated set do for an inspector, measured on held-back real pictures?"""
