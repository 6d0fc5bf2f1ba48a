"""A film is one piece of HTML: its frames, its texts and its slider, with nothing to fetch."""

import base64
import io
import re
from html.parser import HTMLParser

import pytest
import torch
from matplotlib.image import imread

from helpers import plots
from helpers.plots._film import FILM_DPI, picture_tag

NASTY = """a "quoted" <b>bold</b> 'text' & <script>alert(1)</script>"""


class Page(HTMLParser):
    """Every start tag with its attributes, and the text between, by the tag around it."""

    def __init__(self, source):
        super().__init__(convert_charrefs=True)
        self.tags, self.texts, self.open = [], {}, []
        self.feed(source)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in ("img", "input"):  # these have no end
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open:
            self.texts.setdefault(self.open[-1], []).append(data)

    def all(self, name):
        return [attrs for tag, attrs in self.tags if tag == name]


def frame(value):
    """Gray of one value, with a corner of another, so that no scale is drawn beside it."""
    picture = torch.full((1, 9, 9), float(value))
    picture[0, 0, 0] = 0.3
    return plots.images(picture)


def a_film(count=3, caption="The gaze travels."):
    return plots.film([frame(i / 8) for i in range(count)], [f"frame {i}" for i in range(count)], caption)


def pixels(source):
    head, data = source.split(",")
    assert head == "data:image/png;base64"
    return imread(io.BytesIO(base64.b64decode(data, validate=True)))


def shown(style):
    return "display:none" not in style.replace(" ", "")


# a picture


def test_a_picture_is_one_image_with_all_its_data():
    figure = frame(0.5)
    page = Page(picture_tag(figure, "half gray"))
    assert [tag for tag, _ in page.tags] == ["img"]
    (tag,) = page.all("img")
    assert (tag["alt"], tag["style"]) == ("half gray", "max-width:100%")
    width, height = figure.get_size_inches()
    assert pixels(tag["src"]).shape[:2] == (round(height * figure.dpi), round(width * figure.dpi))
    own = io.BytesIO()
    figure.savefig(own, format="png")
    own.seek(0)
    assert (pixels(tag["src"]) == imread(own)).all()


def test_a_picture_takes_its_dots_and_its_style():
    figure = frame(0.5)
    (tag,) = Page(picture_tag(figure, "", dpi=50, style="width:10px")).all("img")
    assert (tag["alt"], tag["style"]) == ("", "width:10px")
    width, height = figure.get_size_inches()
    assert pixels(tag["src"]).shape[:2] == (int(height * 50), int(width * 50))
    assert figure.dpi == 120


@pytest.mark.parametrize("alt", [NASTY, "50 % & “curly” ½ é", "two\nlines"])
def test_texts_are_escaped(alt):
    source = picture_tag(frame(0), alt)
    page = Page(source)
    assert [tag for tag, _ in page.tags] == ["img"]
    assert page.all("img")[0]["alt"] == alt
    assert page.texts == {}
    film = Page(plots.film([frame(0)], [alt], alt)._repr_html_())
    assert [tag for tag, _ in film.tags] == ["div", "input", "img", "p", "script"]
    assert film.all("img")[0]["alt"] == alt
    assert film.all("input")[0]["aria-label"] == alt
    assert film.texts["p"] == [alt]


# a film


def test_the_frames_come_in_their_order_with_their_texts():
    frames = [frame(0), frame(0.5), frame(1)]
    tags = Page(plots.film(frames, ["black", "gray", "white"], "brighter")._repr_html_()).all("img")
    assert [attrs["alt"] for attrs in tags] == ["black", "gray", "white"]
    shapes = {pixels(attrs["src"]).shape for attrs in tags}
    width, height = frames[0].get_size_inches()
    assert shapes == {(int(height * FILM_DPI), int(width * FILM_DPI), 4)}
    middle = [pixels(attrs["src"])[shape // 2, shape // 2, 0] for attrs in tags for shape in [int(height * FILM_DPI)]]
    assert middle == pytest.approx([0, 0.5, 1], abs=0.01)


@pytest.mark.parametrize("count", [1, 5])
def test_without_scripts_the_first_frame_is_shown(count):
    styles = [attrs["style"] for attrs in Page(a_film(count)._repr_html_()).all("img")]
    assert [shown(style) for style in styles] == [True] + [False] * (count - 1)
    assert all(style.startswith("max-width:100%") for style in styles)


@pytest.mark.parametrize("count", [1, 5])
def test_the_slider_has_a_step_for_every_frame(count):
    (slider,) = Page(a_film(count)._repr_html_()).all("input")
    assert {name: slider[name] for name in ("type", "min", "max", "value", "step")} == {
        "type": "range", "min": "0", "max": str(count - 1), "value": "0", "step": "1",
    }  # fmt: skip
    assert slider["aria-label"] == "The gaze travels."


def test_a_film_is_one_block_followed_by_its_script():
    assert repr(a_film(2)) == "Film of 2 frames: The gaze travels."
    page = Page(a_film()._repr_html_())
    assert [tag for tag, _ in page.tags] == ["div", "input", "img", "img", "img", "p", "script"]
    assert page.open == []
    assert page.all("div")[0]["class"] == "film"
    assert page.texts["p"] == ["The gaze travels."]


def test_films_on_a_page_do_not_move_each_other():
    first, second = a_film(2), a_film(3)
    pages = [Page(shown._repr_html_()) for shown in (first, second, first)]  # one film may be shown twice
    names = [page.all("div")[0]["id"] for page in pages]
    assert len(set(names)) == 3
    for page, name in zip(pages, names, strict=True):
        (script,) = page.texts["script"]
        assert re.findall(r'getElementById\("(.+?)"\)', script) == [name]
        assert not re.findall(r"document\.query", script)  # all else is looked for inside the film
        assert len(re.findall(r"film\.querySelector(?:All)?\(", script)) == 2
        # An anonymous function, called at once: nothing of it is seen by another film.
        assert re.fullmatch(r"\(function \(\) \{.*\}\)\(\);", script.strip(), re.DOTALL)


def test_the_script_shows_one_frame_and_says_its_text():
    (script,) = Page(a_film()._repr_html_()).texts["script"]
    assert 'frames[i].style.display = i == slider.value ? "block" : "none"' in script
    assert 'slider.setAttribute("aria-valuetext", frames[slider.value].alt)' in script
    assert 'slider.addEventListener("input", show); show();' in script
    assert "%" not in script


def test_nothing_is_fetched_from_elsewhere():
    source = re.sub(r'src="data:image/png;base64,[A-Za-z0-9+/=]+"', "", a_film()._repr_html_())
    assert not re.findall(r"//|src=|href=|url\(|@import|fetch|import\(|XMLHttp", source)


def test_making_a_film_leaves_its_figures_as_they_were():
    figure = frame(0.5)
    before = figure.dpi, figure.get_size_inches().tolist(), figure._repr_png_()
    plots.film([figure, figure], ["a", "b"], "c")._repr_html_()
    assert (figure.dpi, figure.get_size_inches().tolist(), figure._repr_png_()) == before


@pytest.mark.parametrize(
    ("frames", "alts", "message"),
    [
        (0, [], "frames and alts must be as many, one at least, got 0 and 0"),
        (2, ["a"], "frames and alts must be as many, one at least, got 2 and 1"),
        (1, ["a", "b"], "got 1 and 2"),
    ],
)
def test_other_numbers_of_texts_are_refused(frames, alts, message):
    with pytest.raises(ValueError, match=message):
        plots.film([frame(0)] * frames, alts, "c")
