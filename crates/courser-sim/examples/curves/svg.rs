//! Line charts as SVG: axes, some lines, a legend. Nothing that a text editor could not have written.

use std::fmt::Write as _;

const WIDTH: f64 = 640.0;
const HEIGHT: f64 = 360.0;
const LEFT: f64 = 56.0;
const RIGHT: f64 = 150.0;
const TOP: f64 = 34.0;
const BOTTOM: f64 = 46.0;
const COLOURS: [&str; 8] = ["#1f77b4", "#d62728", "#2ca02c", "#9467bd", "#ff7f0e", "#17becf", "#8c564b", "#7f7f7f"];

/// A named line; dashed when it is a formula.
pub struct Line {
    pub name: String,
    pub points: Vec<(f64, f64)>,
    pub dashed: bool,
}

impl Line {
    pub fn new(name: &str, points: Vec<(f64, f64)>) -> Self {
        Self { name: name.into(), points, dashed: false }
    }

    pub fn dashed(name: &str, points: Vec<(f64, f64)>) -> Self {
        Self { dashed: true, ..Self::new(name, points) }
    }
}

/// A chart of lines.
pub struct Chart {
    pub title: String,
    pub x: String,
    pub y: String,
    /// Whether the axis is logarithmic.
    pub log_x: bool,
    /// Smallest and largest value of the other axis.
    pub y_range: (f64, f64),
    pub lines: Vec<Line>,
}

impl Chart {
    fn x_range(&self) -> (f64, f64) {
        let xs = || self.lines.iter().flat_map(|l| l.points.iter().map(|p| p.0));
        (xs().fold(f64::INFINITY, f64::min), xs().fold(f64::NEG_INFINITY, f64::max))
    }

    fn place_x(&self, x: f64) -> f64 {
        let (low, high) = self.x_range();
        let part = if self.log_x { (x / low).ln() / (high / low).ln() } else { (x - low) / (high - low) };
        LEFT + part * (WIDTH - LEFT - RIGHT)
    }

    fn place_y(&self, y: f64) -> f64 {
        let (low, high) = self.y_range;
        let part = (y.clamp(low, high) - low) / (high - low);
        HEIGHT - BOTTOM - part * (HEIGHT - TOP - BOTTOM)
    }

    fn x_ticks(&self) -> Vec<f64> {
        let (low, high) = self.x_range();
        if self.log_x {
            let decades = (low.log10().floor() as i32)..=(high.log10().ceil() as i32);
            let all = decades.flat_map(|d| [1.0, 2.0, 5.0].map(|m| m * 10f64.powi(d)));
            return all.filter(|x| *x >= low * 0.999 && *x <= high * 1.001).collect();
        }
        (0..=5).map(|i| low + (high - low) * f64::from(i) / 5.0).collect()
    }

    /// The whole file.
    pub fn render(&self) -> String {
        let mut out = String::new();
        let (right, bottom) = (WIDTH - RIGHT, HEIGHT - BOTTOM);
        let _ = writeln!(
            out,
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" \
             font-size=\"11\">\n<rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"white\"/>\n\
             <text x=\"{LEFT}\" y=\"20\" font-size=\"14\">{}</text>",
            self.title
        );
        for x in self.x_ticks() {
            let at = self.place_x(x);
            let _ = writeln!(
                out,
                "<path d=\"M{at:.1} {TOP}V{bottom}\" stroke=\"#e0e0e0\"/>\
                 <text x=\"{at:.1}\" y=\"{}\" text-anchor=\"middle\">{}</text>",
                bottom + 15.0,
                short(x)
            );
        }
        for i in 0..=5 {
            let y = self.y_range.0 + (self.y_range.1 - self.y_range.0) * f64::from(i) / 5.0;
            let at = self.place_y(y);
            let _ = writeln!(
                out,
                "<path d=\"M{LEFT} {at:.1}H{right}\" stroke=\"#e0e0e0\"/>\
                 <text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
                LEFT - 5.0,
                at + 4.0,
                short(y)
            );
        }
        for (i, line) in self.lines.iter().enumerate() {
            let colour = COLOURS[i % COLOURS.len()];
            let dash = if line.dashed { " stroke-dasharray=\"5 4\"" } else { "" };
            let points: Vec<String> =
                line.points.iter().map(|&(x, y)| format!("{:.1},{:.1}", self.place_x(x), self.place_y(y))).collect();
            let _ = writeln!(
                out,
                "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"1.8\"{dash}/>",
                points.join(" ")
            );
            let y = TOP + 12.0 + 16.0 * i as f64;
            let _ = writeln!(
                out,
                "<path d=\"M{} {y}h18\" stroke=\"{colour}\" stroke-width=\"2\"{dash}/><text x=\"{}\" y=\"{}\">{}</text>",
                right + 8.0,
                right + 30.0,
                y + 4.0,
                line.name
            );
        }
        let _ = writeln!(
            out,
            "<path d=\"M{LEFT} {TOP}V{bottom}H{right}\" fill=\"none\" stroke=\"black\"/>\n\
             <text x=\"{}\" y=\"{}\" text-anchor=\"middle\">{}</text>\n\
             <text x=\"14\" y=\"{}\" transform=\"rotate(-90 14 {})\" text-anchor=\"middle\">{}</text>\n</svg>",
            f64::midpoint(LEFT, right),
            HEIGHT - 10.0,
            self.x,
            f64::midpoint(TOP, bottom),
            f64::midpoint(TOP, bottom),
            self.y
        );
        out
    }
}

fn short(v: f64) -> String {
    if v >= 10.0 || v == 0.0 || v.fract() == 0.0 {
        format!("{v:.0}")
    } else {
        format!("{v:.4}").trim_end_matches('0').into()
    }
}
