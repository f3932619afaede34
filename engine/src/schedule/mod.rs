//! What next, and when.
