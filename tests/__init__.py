"""One file of tests a module: test_<package>_<module>.py."""
