//! The log on stderr: one event a line, whatever text of others is in it.

use std::io::{self, Write};

use zklora_models::text::shown;

/// What happens to sessions is logged on stderr; `ZKLORA_LOG` sets how much.
pub fn to_stderr() {
    let filter = tracing_subscriber::EnvFilter::try_from_env("ZKLORA_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("warn,zklora_runtime=info"));
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(|| Escaped(io::stderr()))
        .with_target(false)
        // Colours are codes of the terminal, which are escaped like any other.
        .with_ansi(false);
    // Only a second subscriber in one process would be refused.
    let _ = subscriber.try_init();
}

/// Takes one event a call, with the line break at its end: that is what the subscriber hands over.
struct Escaped<W>(W);

impl<W: Write> Write for Escaped<W> {
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(event);
        let line = shown(text.strip_suffix('\n').unwrap_or(&text)) + "\n";
        self.0.write_all(line.as_bytes())?;
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Kept(Arc<Mutex<Vec<u8>>>);

    impl Write for Kept {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn an_event_is_one_line_whatever_is_in_it() {
        let kept = Kept::default();
        let own = kept.clone();
        let subscriber = tracing_subscriber::fmt().with_writer(move || Escaped(own.clone())).with_ansi(false).finish();
        tracing::subscriber::with_default(subscriber, || {
            tracing::warn!(peer = "a\nERROR forged", "failed: {}", "x\n2026 INFO proven\u{1b}[2K\u{202e}");
        });
        let text = String::from_utf8(kept.0.lock().unwrap().clone()).unwrap();
        assert_eq!(text.matches('\n').count(), 1, "{text:?}");
        // The subscriber has a code of its own for the escape character.
        assert!(
            text.ends_with('\n') && text.contains(r"x\n2026 INFO proven") && text.contains(r"[2K\u{202e}"),
            "{text:?}"
        );
    }
}
