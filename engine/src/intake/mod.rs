//! Mail comes in.
