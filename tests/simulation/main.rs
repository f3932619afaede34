//! Simulated worlds in the tests.
