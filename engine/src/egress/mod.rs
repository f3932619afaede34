//! Mail goes out.
