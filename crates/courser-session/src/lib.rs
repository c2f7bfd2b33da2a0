//! Courser session.
