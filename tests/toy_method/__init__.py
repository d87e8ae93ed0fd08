"""The method that docs/adding_a_method.md adds; tests/test_adding_a_method.py runs it."""
