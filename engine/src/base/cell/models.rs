//! Every order in which two or three threads can meet at a cell.
