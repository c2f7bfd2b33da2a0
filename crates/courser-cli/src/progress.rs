//! Live progress on a terminal: a bar for each direction.

use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::output::Ui;

/// Looks of a bar.
const TEMPLATE: &str = "  {prefix:<16} [{bar:36}] {percent:>3}%  {binary_bytes:>11}  {binary_bytes_per_sec:>13}";
/// How often whoever moves the bars should do so.
pub const INTERVAL: Duration = Duration::from_millis(100);

/// The bars; without effect where nobody watches.
#[derive(Debug)]
pub struct Progress {
    all: MultiProgress,
    bars: Vec<ProgressBar>,
}

impl Progress {
    /// A bar for each name and its bytes.
    #[must_use]
    pub fn new(ui: &Ui, parts: &[(&str, u64)]) -> Self {
        let target =
            if ui.shows_progress() { ProgressDrawTarget::stderr_with_hz(10) } else { ProgressDrawTarget::hidden() };
        Self::on(target, parts)
    }

    fn on(target: ProgressDrawTarget, parts: &[(&str, u64)]) -> Self {
        let all = MultiProgress::with_draw_target(target);
        let style = ProgressStyle::with_template(TEMPLATE).unwrap_or_else(|_| ProgressStyle::default_bar());
        let style = style.progress_chars("=> ");
        let bars = parts
            .iter()
            .map(|(name, bytes)| {
                all.add(ProgressBar::new(*bytes).with_prefix((*name).to_owned()).with_style(style.clone()))
            })
            .collect();
        Self { all, bars }
    }

    /// So many bytes of a part are through.
    pub fn set(&self, part: usize, bytes: u64) {
        if let Some(bar) = self.bars.get(part) {
            bar.set_position(bytes);
        }
    }

    /// So many bytes of a part are through, of so many where that is known.
    pub fn show(&self, part: usize, bytes: u64, size: Option<u64>) {
        if let Some(bar) = self.bars.get(part) {
            match size {
                Some(size) => bar.set_length(size),
                None => bar.unset_length(),
            }
            bar.set_position(bytes);
        }
    }

    /// Takes the bars off the screen; the summary follows.
    pub fn clear(&self) {
        for bar in &self.bars {
            bar.finish_and_clear();
        }
        // A terminal that cannot be written to is none of the job's business.
        let _ = self.all.clear();
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::{Arc, Mutex};

    use indicatif::TermLike;

    use super::*;

    /// Keeps what is written, without the cursor's ways.
    #[derive(Clone, Debug, Default)]
    struct Paper(Arc<Mutex<String>>);

    impl TermLike for Paper {
        fn width(&self) -> u16 {
            120
        }
        fn move_cursor_up(&self, _: usize) -> io::Result<()> {
            Ok(())
        }
        fn move_cursor_down(&self, _: usize) -> io::Result<()> {
            Ok(())
        }
        fn move_cursor_right(&self, _: usize) -> io::Result<()> {
            Ok(())
        }
        fn move_cursor_left(&self, _: usize) -> io::Result<()> {
            Ok(())
        }
        fn write_line(&self, s: &str) -> io::Result<()> {
            self.write_str(s)
        }
        fn write_str(&self, s: &str) -> io::Result<()> {
            self.0.lock().unwrap().push_str(s);
            Ok(())
        }
        fn clear_line(&self) -> io::Result<()> {
            Ok(())
        }
        fn flush(&self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn bars_show_name_share_and_bytes() {
        let paper = Paper::default();
        let target = ProgressDrawTarget::term_like_with_hz(Box::new(paper.clone()), 255);
        let p = Progress::on(target, &[("client → server", 4 << 20), ("server → client", 4 << 20)]);
        p.set(0, 2 << 20);
        p.set(7, 1);
        p.bars[0].tick();
        let shown = paper.0.lock().unwrap().clone();
        assert!(shown.contains("client → server") && shown.contains("50%") && shown.contains("2.00 MiB"), "{shown}");
        p.clear();
        assert!(p.bars.iter().all(ProgressBar::is_finished));
    }
}
