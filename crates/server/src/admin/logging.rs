//! `/logging`.

use std::fmt::Write;
use std::rc::Rc;

use super::Reply;
use super::query::Query;
use crate::control::Control;
use crate::logging::{Level, Log};

/// `/logging[?level=LEVEL | ?LOGGER=LEVEL | ?paths=LOGGER:LEVEL,...]`
pub(super) fn logging(control: &Rc<Control>, query: &Query) -> Reply {
    match change(&control.log, query) {
        Ok(()) => {
            let mut text = "active loggers:\n".to_owned();
            for (name, level) in control.log.levels() {
                // Writing to a `String` does not fail.
                let _ = writeln!(text, "  {name}: {}", level.as_str());
            }
            text.push('\n');
            Reply::text(text)
        }
        Err(message) => Reply::bad(format!("{message}\n{USAGE}")),
    }
}

fn change(log: &Log, query: &Query) -> Result<(), String> {
    let level = |text: &str| Level::parse(text).map_err(|_| "error: unknown logger level\n".to_owned());
    match query.pairs() {
        [] => {}
        [(key, value)] if key == "level" => log.set_all(level(value)?),
        [(key, value)] if key == "paths" => {
            let changes: Vec<_> = value.split(',').filter(|part| !part.is_empty()).collect();
            for change in changes {
                let (name, text) = change.split_once(':').ok_or("error: empty logger name or level\n")?;
                set(log, name, level(text)?)?;
            }
        }
        [(name, value)] => set(log, name, level(value)?)?,
        _ => return Err("error: invalid number of parameters\n".to_owned()),
    }
    Ok(())
}

fn set(log: &Log, name: &str, level: Level) -> Result<(), String> {
    log.set(name, level).map_err(|error| format!("{error}\n"))
}

const USAGE: &str = "\
usage: /logging?<name>=<level> (change single level)
usage: /logging?paths=name1:level1,name2:level2,... (change multiple levels)
usage: /logging?level=<level> (change all levels)
levels: trace debug info warning error critical off
";
