//! Headers we read and write.
