//! Courser tls.
