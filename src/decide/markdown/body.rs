//! Sections: Markdown of people, made safe to stand inside a larger document.
//!
//! It stays Markdown: lists, quotations, tables, code, emphasis, links. What changes:
//!
//! - **Raw HTML** is shown instead of interpreted: `<` becomes `&lt;` where a tag, comment or instruction would begin.
//!   Code stays as it is, except in blocks that are code by indentation alone.
//! - **Headings** stay below the document's own: the topmost heading of a section becomes level 3 and the others keep
//!   their distance. Underlined headings of one line become `#` headings; an underline below several lines becomes a
//!   rule (`---`) or text (`===`).
//! - **Nothing reaches beyond its section**: an open code fence is closed; code spans end on their line; `---` becomes
//!   `***`, so that outside of code only front matter has such lines.
//! - **Links** to `javascript:` and the like lead nowhere, and entities that could spell one are shown as they are.
//! - Containers (quotations, lists) nest eight deep; lines that continue one lazily are put into it; tabs become
//!   spaces, except in code that stands in no container. Footnotes are shown as text.
//!
//! To know what is code and what is text, this follows the block structure of CommonMark line by line. The tests
//! compare the outcome with a real parser.

mod inline;

use super::escape::clean;
use inline::{safe, without_tags};

/// Level of the topmost heading in a section.
const TOP_LEVEL: usize = 3;
/// Containers that nest, at most.
const MAX_DEPTH: usize = 8;

/// The Markdown of a section, safe to stand below a heading of level 2. Ends without a line end.
pub fn section(text: &str) -> String {
    let text = clean(text);
    let highest = Blocks::read(&text, 0).highest;
    let blocks = Blocks::read(&text, TOP_LEVEL.saturating_sub(highest));
    let lines = blocks.out;
    let from = lines.iter().position(|l| !l.trim().is_empty()).unwrap_or(lines.len());
    let to = lines.iter().rposition(|l| !l.trim().is_empty()).map_or(from, |last| last + 1);
    lines[from..to].join("\n")
}

/// A block that holds other blocks.
#[derive(Clone, Debug)]
enum Container {
    Quote,
    /// Columns at which the content of the item begins, and whether it has none yet.
    Item {
        offset: usize,
        empty: bool,
    },
}

/// The block that lines are being added to.
#[derive(Clone, Debug)]
enum Leaf {
    None,
    /// Where its first line stands in the output, how many lines it has, what stands before its text.
    Paragraph {
        first: usize,
        lines: usize,
        prefix: String,
    },
    Fence {
        mark: char,
        length: usize,
        indent: usize,
    },
}

struct Blocks {
    out: Vec<String>,
    containers: Vec<Container>,
    leaf: Leaf,
    /// Levels by which headings move down.
    shift: usize,
    /// The topmost level that was seen.
    highest: usize,
    /// Whether there may be tables, in which a `|` ends a code span.
    tables: bool,
}

impl Blocks {
    fn read(text: &str, shift: usize) -> Self {
        let tables =
            text.lines().any(|l| l.contains('-') && l.chars().all(|c| " \t>|:-+*.)0123456789".contains(c)));
        let mut blocks = Blocks {
            out: Vec::new(),
            containers: Vec::new(),
            leaf: Leaf::None,
            shift,
            highest: TOP_LEVEL,
            tables,
        };
        for line in text.lines() {
            blocks.line(line);
        }
        blocks.end_fence();
        blocks
    }

    fn line(&mut self, raw: &str) {
        let at_top_in_fence = self.containers.is_empty() && matches!(self.leaf, Leaf::Fence { .. });
        let line = if at_top_in_fence { raw.to_owned() } else { expand_tabs(raw) };
        let (matched, rest) = self.matching(&line);
        let all = matched == self.containers.len();
        if matches!(self.leaf, Leaf::Fence { .. }) {
            if all {
                return self.code(rest);
            }
            self.end_fence();
        }
        if rest.trim().is_empty() {
            self.containers.truncate(matched);
            self.leaf = Leaf::None;
            let prefix = self.prefix();
            return self.out.push(prefix.trim_end().to_owned());
        }
        let in_paragraph = all && matches!(self.leaf, Leaf::Paragraph { .. });
        let lazy = !all && matches!(self.leaf, Leaf::Paragraph { .. });
        let (indent, content) = indentation(rest);
        if indent >= 4 || !self.begins_block(content, in_paragraph) {
            if in_paragraph || lazy {
                return self.continue_paragraph(indent, content, lazy);
            }
            self.containers.truncate(matched);
            return self.leaf_block(self.prefix(), rest);
        }
        if in_paragraph && let Some(level) = setext_level(content) {
            return self.underline(level, content);
        }
        self.containers.truncate(matched);
        self.leaf = Leaf::None;
        self.open(rest);
    }

    /// How many containers a line goes on with, and what follows their marks.
    fn matching<'l>(&self, line: &'l str) -> (usize, &'l str) {
        let mut rest = line;
        for (matched, container) in self.containers.iter().enumerate() {
            let (indent, content) = indentation(rest);
            match container {
                Container::Quote if indent < 4 && content.starts_with('>') => {
                    rest = after_quote_mark(content)
                }
                // Blank lines are put out without indentation, so they end an item that has nothing yet.
                Container::Item { empty, .. } if content.is_empty() => match empty {
                    true => return (matched, rest),
                    false => rest = content,
                },
                Container::Item { offset, .. } if indent >= *offset => rest = &rest[*offset..],
                Container::Quote | Container::Item { .. } => return (matched, rest),
            }
        }
        (self.containers.len(), rest)
    }

    /// What stands before a line inside the open containers.
    fn prefix(&self) -> String {
        let marks = self.containers.iter().map(|container| match container {
            Container::Quote => "> ".to_owned(),
            Container::Item { offset, .. } => " ".repeat(*offset),
        });
        marks.collect()
    }

    /// Whether this, indented by less than four columns, begins a block other than a paragraph.
    fn begins_block(&self, content: &str, in_paragraph: bool) -> bool {
        content.starts_with('>')
            || heading_level(content).is_some()
            || fence(content).is_some()
            || (in_paragraph && setext_level(content).is_some())
            || rule(content).is_some()
            || list_mark(content).is_some_and(|mark| !in_paragraph || mark.interrupts)
    }

    /// Opens the containers that a line begins with, and the block in them.
    fn open(&mut self, mut rest: &str) {
        let mut prefix = self.prefix();
        loop {
            let (indent, content) = indentation(rest);
            let plain = indent >= 4
                || self.containers.len() >= MAX_DEPTH
                || heading_level(content).is_some()
                || fence(content).is_some()
                || rule(content).is_some();
            if plain {
                break;
            }
            if content.starts_with('>') {
                self.fill_items();
                self.containers.push(Container::Quote);
                prefix.push_str("> ");
                rest = after_quote_mark(content);
                continue;
            }
            let Some(mark) = list_mark(content) else { break };
            self.fill_items();
            let (space, text) = indentation(&content[mark.width..]);
            // Five columns and more are one, and code by indentation.
            let space = if text.is_empty() || space > 4 { 1 } else { space };
            let offset = indent + mark.width + space;
            self.containers.push(Container::Item { offset, empty: true });
            prefix.push_str(&" ".repeat(indent));
            prefix.push_str(&content[..mark.width]);
            prefix.push_str(&" ".repeat(space));
            rest = if text.is_empty() { "" } else { &content[mark.width + space..] };
        }
        if rest.trim().is_empty() {
            self.leaf = Leaf::None;
            return self.out.push(prefix.trim_end().to_owned());
        }
        self.leaf_block(prefix, rest);
    }

    fn fill_items(&mut self) {
        for container in &mut self.containers {
            if let Container::Item { empty, .. } = container {
                *empty = false;
            }
        }
    }

    /// Begins a block that holds text: a heading, code, a rule, a paragraph.
    fn leaf_block(&mut self, prefix: String, rest: &str) {
        self.fill_items();
        let (indent, content) = indentation(rest);
        self.leaf = Leaf::None;
        if indent >= 4 {
            return self.out.push(format!("{prefix}{}", without_tags(rest)));
        }
        if let Some(level) = heading_level(content) {
            let text = safe(&content[level..], self.tables);
            let level = self.level(level);
            return self.out.push(format!("{prefix}{}{text}", "#".repeat(level)));
        }
        if let Some((mark, length)) = fence(content) {
            self.leaf = Leaf::Fence { mark, length, indent };
            let marks = mark.to_string().repeat(length);
            return self.out.push(format!("{prefix}{marks}{}", language(&content[length..])));
        }
        if let Some(mark) = rule(content) {
            let content = if mark == '-' { "***" } else { content };
            return self.out.push(format!("{prefix}{content}"));
        }
        let first = self.out.len();
        let text = self.text(content);
        // Beyond the deepest container, marks of containers are text.
        let text =
            if content.starts_with('>') || list_mark(content).is_some() { escape_mark(&text) } else { text };
        self.out.push(format!("{prefix}{text}"));
        self.leaf = Leaf::Paragraph { first, lines: 1, prefix };
    }

    /// A line of a paragraph. The definition of a footnote is shown as text: what follows it, indented, would be read
    /// in one way by parsers that know footnotes and in another by those that do not.
    fn text(&self, content: &str) -> String {
        let text = safe(content, self.tables);
        if content.starts_with("[^") && content.contains("]:") { format!("\\{text}") } else { text }
    }

    fn continue_paragraph(&mut self, indent: usize, content: &str, lazy: bool) {
        let text = self.text(content);
        // What is lazy is no underline; put into its container it would be.
        let text = if lazy && setext_level(content).is_some() { format!("\\{text}") } else { text };
        // Below a table, which is a paragraph here, it would begin a list.
        let text = if indent < 4 && list_mark(content).is_some() { escape_mark(&text) } else { text };
        let indent = " ".repeat(indent.min(4));
        self.out.push(format!("{}{indent}{text}", self.prefix()));
        if let Leaf::Paragraph { lines, .. } = &mut self.leaf {
            *lines += 1;
        }
    }

    /// An underline that makes the paragraph above it a heading.
    fn underline(&mut self, level: usize, content: &str) {
        let inner = self.prefix();
        let Leaf::Paragraph { first, lines, prefix } = self.leaf.clone() else { return };
        if lines == 1 {
            let text = self.out[first][prefix.len()..].trim_end().to_owned();
            let marks = "#".repeat(self.level(level));
            let end = if text.ends_with('#') { " #" } else { "" };
            self.out[first] = format!("{prefix}{marks} {text}{end}");
            self.leaf = Leaf::None;
        } else if level == 1 {
            self.out.push(format!("{inner}\\{content}"));
        } else {
            self.out.push(inner.trim_end().to_owned());
            self.out.push(format!("{inner}***"));
            self.leaf = Leaf::None;
        }
    }

    fn level(&mut self, level: usize) -> usize {
        self.highest = self.highest.min(level);
        (level + self.shift).min(6)
    }

    /// A line inside a fence.
    fn code(&mut self, rest: &str) {
        let Leaf::Fence { mark, length, indent: fence_indent } = self.leaf else { return };
        let (indent, content) = indentation(rest);
        let marks = content.chars().take_while(|c| *c == mark).count();
        if indent < 4 && marks >= length && content[marks..].trim().is_empty() {
            return self.end_fence();
        }
        let line = format!("{}{}", self.prefix(), &rest[indent.min(fence_indent)..]);
        self.out.push(if content.is_empty() { line.trim_end_matches(' ').to_owned() } else { line });
    }

    fn end_fence(&mut self) {
        if let Leaf::Fence { mark, length, .. } = self.leaf {
            self.out.push(format!("{}{}", self.prefix(), mark.to_string().repeat(length)));
            self.leaf = Leaf::None;
        }
    }
}

/// Spaces at the start, and what follows them.
fn indentation(line: &str) -> (usize, &str) {
    let content = line.trim_start_matches(' ');
    (line.len() - content.len(), content)
}

fn expand_tabs(line: &str) -> String {
    let mut out = String::with_capacity(line.len());
    let mut column = 0;
    for c in line.chars() {
        let width = if c == '\t' { 4 - column % 4 } else { 1 };
        if c == '\t' {
            out.push_str(&"    "[..width]);
        } else {
            out.push(c);
        }
        column += width;
    }
    out
}

fn after_quote_mark(content: &str) -> &str {
    let rest = &content[1..];
    rest.strip_prefix(' ').unwrap_or(rest)
}

fn heading_level(content: &str) -> Option<usize> {
    let level = content.bytes().take_while(|b| *b == b'#').count();
    let rest = &content[level..];
    ((1..=6).contains(&level) && (rest.is_empty() || rest.starts_with(' '))).then_some(level)
}

fn setext_level(content: &str) -> Option<usize> {
    let marks = content.trim_end();
    let only = |mark: char| !marks.is_empty() && marks.chars().all(|c| c == mark);
    if only('=') { Some(1) } else { only('-').then_some(2) }
}

fn fence(content: &str) -> Option<(char, usize)> {
    let mark = content.chars().next().filter(|c| matches!(c, '`' | '~'))?;
    let length = content.chars().take_while(|c| *c == mark).count();
    (length >= 3 && (mark == '~' || !content[length..].contains('`'))).then_some((mark, length))
}

/// The language of a code block: one word, without the braces with which some tools smuggle in raw output.
fn language(info: &str) -> String {
    let kept = |c: &char| c.is_ascii_alphanumeric() || "_+#.-".contains(*c);
    info.trim().chars().take_while(kept).take(32).collect()
}

fn rule(content: &str) -> Option<char> {
    let mark = content.chars().next().filter(|c| matches!(c, '*' | '-' | '_'))?;
    let marks = content.chars().filter(|c| *c == mark).count();
    (marks >= 3 && content.chars().all(|c| c == mark || c == ' ')).then_some(mark)
}

struct ListMark {
    width: usize,
    /// Whether it may end a paragraph.
    interrupts: bool,
}

fn list_mark(content: &str) -> Option<ListMark> {
    let digits = content.bytes().take_while(u8::is_ascii_digit).count();
    let width = match digits {
        0 if content.starts_with(['-', '+', '*']) => 1,
        1..=9 if content[digits..].starts_with(['.', ')']) => digits + 1,
        _ => return None,
    };
    let rest = &content[width..];
    let first = digits == 0 || content[..digits].parse() == Ok(1);
    (rest.is_empty() || rest.starts_with(' '))
        .then(|| ListMark { width, interrupts: first && !rest.trim().is_empty() })
}

fn escape_mark(text: &str) -> String {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    format!("{}\\{}", &text[..digits], &text[digits..])
}

#[cfg(test)]
mod tests;
