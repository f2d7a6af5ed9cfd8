//! Markdown as a real parser of CommonMark with GitHub's extensions sees it. For tests.

use comrak::{
    Arena, Options,
    nodes::{AstNode, NodeValue},
    parse_document,
};

/// GitHub's extensions, and front matter.
pub fn github() -> Options<'static> {
    let mut options = Options::default();
    options.extension.table = true;
    options.extension.strikethrough = true;
    options.extension.autolink = true;
    options.extension.tasklist = true;
    options.extension.footnotes = true;
    options.extension.alerts = true;
    options.extension.front_matter_delimiter = Some("---".to_owned());
    options
}

/// Markdown as plain CommonMark has it, and what GitHub makes of it.
pub fn dialects() -> [Options<'static>; 2] {
    [Options::default(), github()]
}

/// Calls `look` with every node of a document, the document's own children marked.
pub fn each(text: &str, options: &Options<'_>, look: &mut dyn FnMut(&NodeValue, bool)) {
    let arena = Arena::new();
    let root = parse_document(&arena, text, options);
    for node in root.descendants() {
        let top = node.parent().is_some_and(|p| matches!(p.data.borrow().value, NodeValue::Document));
        look(&node.data.borrow().value, top);
    }
}

/// The text of a node, without marks.
pub fn text_of<'a>(node: &'a AstNode<'a>) -> String {
    let mut text = String::new();
    for child in node.descendants() {
        match &child.data.borrow().value {
            NodeValue::Text(t) => text.push_str(t),
            NodeValue::Code(code) => text.push_str(&code.literal),
            NodeValue::SoftBreak | NodeValue::LineBreak => text.push(' '),
            _ => {}
        }
    }
    text
}

/// Every heading with its level, and whether it is one of the document's own.
pub fn headings(text: &str, options: &Options<'_>) -> Vec<(u8, String, bool)> {
    let arena = Arena::new();
    let root = parse_document(&arena, text, options);
    let mut found = Vec::new();
    for node in root.descendants() {
        if let NodeValue::Heading(heading) = &node.data.borrow().value {
            let top = node.parent().is_some_and(|p| matches!(p.data.borrow().value, NodeValue::Document));
            found.push((heading.level, text_of(node), top));
        }
    }
    found
}

/// What of a document is raw HTML, and addresses of its links that run something.
pub fn dangers(text: &str, options: &Options<'_>) -> Vec<String> {
    let mut found = Vec::new();
    each(text, options, &mut |node, _| match node {
        NodeValue::HtmlBlock(html) => found.push(html.literal.clone()),
        NodeValue::HtmlInline(html) => found.push(html.clone()),
        NodeValue::Link(link) | NodeValue::Image(link) => {
            let address: String = link.url.to_lowercase().split_whitespace().collect();
            if ["javascript:", "vbscript:", "data:text/html"].iter().any(|s| address.starts_with(s)) {
                found.push(link.url.clone());
            }
        }
        _ => {}
    });
    found
}

/// The rows of every table, cell by cell.
pub fn tables(text: &str) -> Vec<Vec<Vec<String>>> {
    let arena = Arena::new();
    let root = parse_document(&arena, text, &github());
    let mut found = Vec::new();
    for table in root.children().filter(|n| matches!(n.data.borrow().value, NodeValue::Table(_))) {
        let rows = table.children().map(|row| row.children().map(|cell| text_of(cell)).collect()).collect();
        found.push(rows);
    }
    found
}
