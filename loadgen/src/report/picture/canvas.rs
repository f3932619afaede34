//! The sheet that pictures are drawn on: sizes, colours, letters, and how the SVG stands in its page.

use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::words;
use crate::report::ReportError;

/// Drawn twice as large as shown: the library rounds to whole units, and curves would have steps.
const SCALE: u8 = 2;
pub(in crate::report) const WIDTH: u32 = 1060;
/// What the library divides the size of a letter by.
const LETTER: f64 = 1.24;
const FONT: &str = "system-ui, 'Segoe UI', 'Helvetica Neue', 'DejaVu Sans', Arial, sans-serif";

/// Every colour is one of these, so that a page in the dark can name another for each.
pub(in crate::report) const PAPER: RGBColor = RGBColor(0xff, 0xff, 0xfe);
pub(in crate::report) const INK: RGBColor = RGBColor(0x1f, 0x23, 0x28);
pub(in crate::report) const MUTED: RGBColor = RGBColor(0x5d, 0x66, 0x70);
pub(in crate::report) const AXIS: RGBColor = RGBColor(0x9a, 0xa2, 0xab);
pub(in crate::report) const GRID: RGBColor = RGBColor(0xe6, 0xe9, 0xec);
pub(in crate::report) const BLUE: RGBColor = RGBColor(0x0a, 0x69, 0xc4);
pub(in crate::report) const ORANGE: RGBColor = RGBColor(0xc2, 0x55, 0x0a);
pub(in crate::report) const GREEN: RGBColor = RGBColor(0x1b, 0x7f, 0x5c);
pub(in crate::report) const PURPLE: RGBColor = RGBColor(0x7c, 0x4f, 0xcf);
pub(in crate::report) const GOLD: RGBColor = RGBColor(0x8f, 0x6c, 0x05);
pub(in crate::report) const TEAL: RGBColor = RGBColor(0x0b, 0x76, 0x86);
pub(in crate::report) const RED: RGBColor = RGBColor(0xc9, 0x26, 0x2f);
/// Lines of single runs behind the line of all.
pub(in crate::report) const FAINT_BLUE: RGBColor = RGBColor(0xa9, 0xcb, 0xee);
pub(in crate::report) const FAINT_ORANGE: RGBColor = RGBColor(0xf0, 0xc5, 0xa3);
/// From a message here and there to where most of them are.
pub(in crate::report) const HEAT: [RGBColor; 8] = [
    RGBColor(0xe9, 0xf1, 0xfa),
    RGBColor(0xd0, 0xe2, 0xf4),
    RGBColor(0xae, 0xcf, 0xec),
    RGBColor(0x81, 0xb5, 0xe0),
    RGBColor(0x55, 0x98, 0xd1),
    RGBColor(0x31, 0x79, 0xbd),
    RGBColor(0x17, 0x59, 0x9e),
    RGBColor(0x0b, 0x3a, 0x73),
];

/// What stands for each colour in the dark.
const IN_THE_DARK: [(RGBColor, &str); 22] = [
    (PAPER, "#11161c"),
    (INK, "#e6edf3"),
    (MUTED, "#a0a9b3"),
    (AXIS, "#6b7580"),
    (GRID, "#29313a"),
    (BLUE, "#5aa9ff"),
    (ORANGE, "#f0903f"),
    (GREEN, "#41bd8d"),
    (PURPLE, "#bb93ff"),
    (GOLD, "#d9b23c"),
    (TEAL, "#4cc0d0"),
    (RED, "#ff7b72"),
    (FAINT_BLUE, "#2b4f78"),
    (FAINT_ORANGE, "#6e4524"),
    (HEAT[0], "#15212e"),
    (HEAT[1], "#182d44"),
    (HEAT[2], "#1c3e61"),
    (HEAT[3], "#225382"),
    (HEAT[4], "#2f6ea9"),
    (HEAT[5], "#4a8fd0"),
    (HEAT[6], "#7fb7ec"),
    (HEAT[7], "#c9e3ff"),
];

pub(in crate::report) type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
pub(in crate::report) type Painted = Result<(), Box<dyn std::error::Error>>;

/// What a picture is, before it is drawn.
pub(in crate::report) struct Picture {
    /// Tells its title from those of the other pictures of a page.
    pub(in crate::report) id: &'static str,
    pub(in crate::report) title: String,
    /// What it shows, for those who cannot see it.
    pub(in crate::report) about: String,
    pub(in crate::report) height: u32,
}

/// A picture that has been drawn.
pub(in crate::report) struct Drawing {
    pub(in crate::report) picture: Picture,
    /// The elements, without the `svg` around them.
    elements: String,
}

impl Picture {
    pub(in crate::report) fn draw(
        self,
        paint: impl FnOnce(&Area<'_>) -> Painted,
    ) -> Result<Drawing, ReportError> {
        let mut svg = String::new();
        let failed = |error: &dyn std::fmt::Display| ReportError::Picture(error.to_string());
        {
            let size = (px(WIDTH), px(self.height));
            let area = SVGBackend::with_string(&mut svg, size).into_drawing_area();
            area.fill(&PAPER).map_err(|error| failed(&error))?;
            paint(&area).map_err(|error| failed(&error))?;
            area.present().map_err(|error| failed(&error))?;
        }
        let inside = svg.split_once('>').and_then(|(_, rest)| rest.rsplit_once("</svg>"));
        let (elements, _) = inside.ok_or_else(|| failed(&"no picture came about"))?;
        Ok(Drawing { picture: self, elements: elements.to_owned() })
    }
}

impl Drawing {
    /// For a page, which has the colours for the dark.
    pub(in crate::report) fn inline(&self) -> String {
        format!("<svg class=\"picture\" {}\n{}</svg>", self.head(), self.elements)
    }

    /// As a file of its own.
    pub(in crate::report) fn alone(&self) -> String {
        let size = format!("width=\"{WIDTH}\" height=\"{}\"", self.picture.height);
        let (head, style) = (self.head(), style(""));
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" {size} {head}\n<style>{style}</style>\n{}</svg>\n",
            self.elements
        )
    }

    /// The rest of the first tag, the title and the description.
    fn head(&self) -> String {
        let Picture { id, title, about, height } = &self.picture;
        let (width, height) = (px(WIDTH), px(*height));
        format!(
            "viewBox=\"0 0 {width} {height}\" role=\"img\" aria-labelledby=\"{id}-title {id}-about\">\n\
             <title id=\"{id}-title\">{}</title>\n<desc id=\"{id}-about\">{}</desc>",
            escaped(title),
            escaped(about)
        )
    }
}

/// Rules for what is below `scope`: boxes without seams; every colour its other one where the reader likes it
/// dark, except on paper.
pub(in crate::report) fn style(scope: &str) -> String {
    let mut rules = String::new();
    for (RGBColor(red, green, blue), dark) in IN_THE_DARK {
        for property in ["fill", "stroke"] {
            let light = format!("#{red:02X}{green:02X}{blue:02X}");
            rules.push_str(&format!("{scope}[{property}=\"{light}\"]{{{property}:{dark}}}"));
        }
    }
    format!(
        "{scope}rect{{shape-rendering:crispEdges}}\
         @media screen and (prefers-color-scheme:dark){{{rules}}}"
    )
}

fn escaped(text: &str) -> String {
    let text = words::printable(text, usize::MAX);
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

/// A length of the sheet in the library's units.
pub(in crate::report) fn px<T: std::ops::Mul<Output = T> + From<u8>>(length: T) -> T {
    length * T::from(SCALE)
}

pub(in crate::report) fn font(size: i32, colour: RGBColor) -> TextStyle<'static> {
    (FONT, f64::from(px(size)) * LETTER).into_font().color(&colour)
}

pub(in crate::report) fn bold(size: i32, colour: RGBColor) -> TextStyle<'static> {
    let font = (FONT, f64::from(px(size)) * LETTER, FontStyle::Bold);
    font.into_font().color(&colour)
}

/// Where a text stands from its place.
pub(in crate::report) fn placed(
    style: TextStyle<'static>,
    across: HPos,
    down: VPos,
) -> TextStyle<'static> {
    style.pos(Pos::new(across, down))
}

/// Writes at a place of the area, given in pixels as shown.
pub(in crate::report) fn text(
    area: &Area<'_>,
    text: &str,
    at: (i32, i32),
    style: TextStyle<'static>,
) -> Painted {
    area.draw(&Text::new(text.to_owned(), (px(at.0), px(at.1)), style))?;
    Ok(())
}

pub(in crate::report) fn stroke(colour: RGBColor, width: u32) -> ShapeStyle {
    colour.stroke_width(width)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn picture() -> Picture {
        Picture { id: "p", title: "<b>&".to_owned(), about: "a\u{0}b".to_owned(), height: 50 }
    }

    #[test]
    fn titles_are_escaped_and_free_of_what_xml_forbids() {
        let drawing = picture().draw(|_| Ok(())).unwrap();
        for svg in [drawing.inline(), drawing.alone()] {
            assert!(svg.contains("&lt;b&gt;&amp;") && svg.contains("a\u{fffd}b"), "{svg}");
        }
    }

    #[test]
    fn every_colour_has_one_for_the_dark_of_its_own() {
        let mut light: Vec<_> =
            IN_THE_DARK.iter().map(|(RGBColor(r, g, b), _)| (r, g, b)).collect();
        light.sort_unstable();
        light.dedup();
        assert_eq!(light.len(), IN_THE_DARK.len());
        let drawn = picture().draw(|_| Ok(())).unwrap().inline();
        assert!(drawn.contains("fill=\"#FFFFFE\"") && style("").contains("[fill=\"#FFFFFE\"]"));
    }
}
