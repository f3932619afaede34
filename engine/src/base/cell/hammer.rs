//! Real threads on one cell.
