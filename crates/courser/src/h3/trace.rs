//! What HTTP/3 tells about a connection, on its way to the trace of the connection.
//!
//! Text goes to the worker, which hands it to the observer before it looks at what the connection's streams want: a frame stands
//! before the bytes that it made move. What finds no room on the way is counted, and told with the next that does.

use std::sync::Arc;

use courser_h3::watch::{Told, Watch};

use crate::hub::conn::ConnSlot;
use crate::qlog::http;

/// Writes for one connection.
pub(super) struct Tracer {
    conn: Arc<ConnSlot>,
    lost: u64,
}

impl Tracer {
    /// A tracer when somebody writes traces.
    pub(super) fn of(conn: &Arc<ConnSlot>) -> Option<Box<dyn Watch>> {
        conn.shared.is_traced().then(|| Box::new(Self { conn: Arc::clone(conn), lost: 0 }) as Box<dyn Watch>)
    }

    fn note(&self, note: Vec<u8>) -> bool {
        self.conn.shared.note(&self.conn, note)
    }
}

impl Watch for Tracer {
    fn on(&mut self, told: &Told<'_>) {
        if self.lost > 0 && self.note(http::missing(self.lost)) {
            self.lost = 0;
        }
        if self.lost > 0 || !self.note(http::event(told)) {
            self.lost += 1;
        }
    }
}
