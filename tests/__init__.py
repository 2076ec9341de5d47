"""The test suite. A package, so that a folder named like an app is not taken for that app."""
