//! Courser.
