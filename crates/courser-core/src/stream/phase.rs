//! The states of the two parts of a stream (RFC 9000 section 3).

/// The state does not know this event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IllegalEvent;

/// The sending part (RFC 9000 section 3.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SendPhase {
    /// Open; nothing was sent.
    #[default]
    Ready,
    /// Data was sent.
    Send,
    /// All data and FIN were sent, or RESET_STREAM_AT and the data that it promises.
    DataSent,
    /// RESET_STREAM was sent or is due.
    ResetSent {
        /// The application's error code; never changes.
        code: u64,
        /// Bytes that count for the stream; never changes.
        final_size: u64,
    },
    /// Everything arrived, FIN included, or what RESET_STREAM_AT promised. Terminal.
    DataRecvd,
    /// RESET_STREAM arrived. Terminal.
    ResetRecvd,
}

/// What happens to a sending part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SendEvent {
    /// A STREAM or STREAM_DATA_BLOCKED frame left.
    Sent,
    /// A STREAM frame with FIN left and no byte is unsent, or RESET_STREAM_AT left.
    FinSent,
    /// Everything arrived.
    AllAcked,
    /// The application, or the peer's STOP_SENDING, ends it early.
    Reset {
        /// The error code.
        code: u64,
        /// Bytes sent so far.
        final_size: u64,
    },
    /// RESET_STREAM arrived.
    ResetAcked,
}

impl SendPhase {
    /// The next state.
    ///
    /// # Errors
    /// [`IllegalEvent`] when the RFC has no such transition.
    pub const fn on(self, event: SendEvent) -> Result<Self, IllegalEvent> {
        use SendEvent::{AllAcked, FinSent, Reset, ResetAcked, Sent};
        match (self, event) {
            (Self::Ready | Self::Send, Sent) => Ok(Self::Send),
            (Self::DataSent, Sent | FinSent) | (Self::Ready | Self::Send, FinSent) => Ok(Self::DataSent),
            (Self::DataSent, AllAcked) => Ok(Self::DataRecvd),
            (Self::Ready | Self::Send | Self::DataSent, Reset { code, final_size }) => {
                Ok(Self::ResetSent { code, final_size })
            }
            (Self::ResetSent { .. }, ResetAcked) => Ok(Self::ResetRecvd),
            _ => Err(IllegalEvent),
        }
    }

    /// Whether the part is done for good.
    #[must_use]
    pub const fn is_terminal(self) -> bool {
        matches!(self, Self::DataRecvd | Self::ResetRecvd)
    }

    /// Whether STREAM frames may leave.
    #[must_use]
    pub const fn may_send(self) -> bool {
        //= rfc9000#3.3-1
        //= rfc9000#3.3-2
        matches!(self, Self::Ready | Self::Send | Self::DataSent)
    }
}

/// The receiving part (RFC 9000 section 3.2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RecvPhase {
    /// The final size is not known.
    #[default]
    Recv,
    /// FIN came, or RESET_STREAM_AT; data is missing.
    SizeKnown {
        /// Bytes of the stream.
        final_size: u64,
    },
    /// All data came, or all that RESET_STREAM_AT promised; the application has not read to the end.
    DataRecvd {
        /// Bytes of the stream.
        final_size: u64,
    },
    /// The application read to the end. Terminal.
    DataRead,
    /// RESET_STREAM came; the application does not know yet.
    ResetRecvd {
        /// The peer's error code.
        code: u64,
    },
    /// The application knows of the reset. Terminal.
    ResetRead,
}

/// What happens to a receiving part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecvEvent {
    /// A frame with FIN came.
    Fin {
        /// Bytes of the stream.
        final_size: u64,
    },
    /// No byte is missing.
    AllReceived,
    /// The application read to the end.
    AllRead,
    /// RESET_STREAM came.
    Reset {
        /// The peer's error code.
        code: u64,
    },
    /// The application learnt of the reset.
    ResetRead,
}

impl RecvPhase {
    /// The next state. RESET_STREAM after all data came is ignored, as the RFC allows.
    ///
    /// # Errors
    /// [`IllegalEvent`] when the RFC has no such transition.
    pub const fn on(self, event: RecvEvent) -> Result<Self, IllegalEvent> {
        match (self, event) {
            (Self::Recv, RecvEvent::Fin { final_size }) => Ok(Self::SizeKnown { final_size }),
            (Self::SizeKnown { final_size }, RecvEvent::AllReceived) => Ok(Self::DataRecvd { final_size }),
            (Self::DataRecvd { .. }, RecvEvent::AllRead) => Ok(Self::DataRead),
            (Self::Recv | Self::SizeKnown { .. }, RecvEvent::Reset { code }) => Ok(Self::ResetRecvd { code }),
            // Behind what a RESET_STREAM_AT promised stands the reset, not the end.
            (Self::ResetRecvd { .. } | Self::DataRecvd { .. }, RecvEvent::ResetRead) => Ok(Self::ResetRead),
            // Repetitions and crossings change nothing.
            (Self::SizeKnown { .. } | Self::DataRecvd { .. } | Self::DataRead, RecvEvent::Fin { .. })
            | (Self::ResetRecvd { .. } | Self::ResetRead, RecvEvent::Fin { .. } | RecvEvent::Reset { .. })
            | (Self::DataRecvd { .. } | Self::DataRead, RecvEvent::Reset { .. }) => Ok(self),
            _ => Err(IllegalEvent),
        }
    }

    /// Whether the part is done for good.
    #[must_use]
    pub const fn is_terminal(self) -> bool {
        matches!(self, Self::DataRead | Self::ResetRead)
    }

    /// The final size, as far as data still counts.
    #[must_use]
    pub const fn final_size(self) -> Option<u64> {
        match self {
            Self::SizeKnown { final_size } | Self::DataRecvd { final_size } => Some(final_size),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sending_part_follows_the_figure() {
        let reset = SendEvent::Reset { code: 7, final_size: 9 };
        let states = [
            SendPhase::Ready,
            SendPhase::Send,
            SendPhase::DataSent,
            SendPhase::ResetSent { code: 7, final_size: 9 },
            SendPhase::DataRecvd,
            SendPhase::ResetRecvd,
        ];
        let events = [SendEvent::Sent, SendEvent::FinSent, SendEvent::AllAcked, reset, SendEvent::ResetAcked];
        // Rows are states, columns are events; figures are positions in `states`, `-` is illegal.
        let table = ["12-3-", "12-3-", "2243-", "----5", "-----", "-----"];
        for (state, row) in states.iter().zip(table) {
            for (event, cell) in events.iter().zip(row.chars()) {
                let expected = cell.to_digit(10).map(|i| states[i as usize]).ok_or(IllegalEvent);
                assert_eq!(state.on(*event), expected, "{state:?} on {event:?}");
            }
        }
    }

    #[test]
    fn the_final_size_counts_until_everything_was_read() {
        let known = [RecvPhase::SizeKnown { final_size: 5 }, RecvPhase::DataRecvd { final_size: 5 }];
        assert!(known.iter().all(|phase| phase.final_size() == Some(5)));
        let others = [RecvPhase::Recv, RecvPhase::DataRead, RecvPhase::ResetRecvd { code: 3 }, RecvPhase::ResetRead];
        assert!(others.iter().all(|phase| phase.final_size().is_none()));
    }

    #[test]
    fn the_receiving_part_follows_the_figure() {
        let states = [
            RecvPhase::Recv,
            RecvPhase::SizeKnown { final_size: 5 },
            RecvPhase::DataRecvd { final_size: 5 },
            RecvPhase::DataRead,
            RecvPhase::ResetRecvd { code: 3 },
            RecvPhase::ResetRead,
        ];
        let events = [
            RecvEvent::Fin { final_size: 5 },
            RecvEvent::AllReceived,
            RecvEvent::AllRead,
            RecvEvent::Reset { code: 3 },
            RecvEvent::ResetRead,
        ];
        let table = ["1--4-", "12-4-", "2-325", "3--3-", "4--45", "5--5-"];
        for (state, row) in states.iter().zip(table) {
            for (event, cell) in events.iter().zip(row.chars()) {
                let expected = cell.to_digit(10).map(|i| states[i as usize]).ok_or(IllegalEvent);
                assert_eq!(state.on(*event), expected, "{state:?} on {event:?}");
            }
        }
    }
}
