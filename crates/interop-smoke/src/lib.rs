//! The built command against other stacks, and the examples of the documents.
//!
//! `tests/smoke` runs the `courser` command against quinn and aioquic over loopback. The examples of the README and of the book
//! are compiled and run as tests of this crate.

/// The README, so that its examples are tests.
#[doc = include_str!("../../../README.md")]
#[cfg(doctest)]
pub struct Readme;

/// The chapters of the book, so that their examples are tests. `tests/book.rs` sees that none is missing.
#[cfg(doctest)]
pub mod book {
    macro_rules! chapters {
        ($($name:ident = $file:literal;)*) => {
            $(#[doc = include_str!(concat!("../../../docs/book/src/", $file))] pub struct $name;)*
        };
    }
    chapters! {
        Introduction = "introduction.md";
        FirstServer = "first-server.md";
        FirstClient = "first-client.md";
        Http3 = "http3.md";
        SansIo = "sans-io.md";
        Simulation = "simulation.md";
        C = "c.md";
        HostStack = "host-stack.md";
        Tuning = "tuning.md";
        Debugging = "debugging.md";
        FromQuinn = "from-quinn.md";
        FromQuiche = "from-quiche.md";
    }
}
