//! Tests of the legality checker.
