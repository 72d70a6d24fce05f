//! Whole-path tests.
