//! Courser sim.
