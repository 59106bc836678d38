"""What is distilled: plain settings, and the two named recipes."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Recipe:
    """Everything that defines a run apart from its seed and its machine."""

    name: str
    data: str  # "movie-snippets", "hub" or "files"
    teacher: str  # hub id, folder, or the embedded backbone
    student: str | None = None  # hub id or folder; None cuts the student out of the teacher
    student_layers: int | None = None  # how many of the teacher's layers, evenly spaced
    dataset_id: str | None = None
    dataset_config: str | None = None
    text_column: str = "text"
    label_column: str = "label"
    max_length: int = 128  # word pieces, [CLS] and [SEP] included
    # the teacher's fine-tuning, where it comes as a bare encoder
    teacher_epochs: float = 3
    teacher_learning_rate: float = 5e-5
    # the students' training
    epochs: float = 3
    batch_size: int = 32
    learning_rate: float = 1e-4
    alpha: float = 0.0  # weight of the labels' cross-entropy
    temperature: float = 2.0
    warmup: float = 0.1  # share of all optimizer steps
    train_embeddings: bool = False
    dropout: float | None = None  # of the students; None: as the model comes. A teacher always keeps its own
    drop_leaks: bool = False  # leave out training rows that stand in validation or test too


MOVIE_SNIPPETS = Recipe(
    name="movie-snippets",
    data="movie-snippets",
    teacher="minilm-l6-h384",
    teacher_epochs=4,
    teacher_learning_rate=1e-4,
    student_layers=3,
    epochs=3,
    learning_rate=3e-4,
    temperature=4.0,
    dropout=0.0,
)

# The article's run, number by number: its teacher, student, data, epochs, batch size, learning rate, alpha and T.
SST2 = Recipe(
    name="sst2",
    data="hub",
    teacher="textattack/bert-base-uncased-SST-2",
    student="distilbert/distilbert-base-uncased",
    dataset_id="nyu-mll/glue",
    dataset_config="sst2",
    text_column="sentence",
    epochs=3,
    batch_size=64,
    learning_rate=5e-5,
    alpha=0.5,
    temperature=3.0,
    warmup=0.0,
    train_embeddings=True,
    drop_leaks=True,
)

RECIPES = {recipe.name: recipe for recipe in (MOVIE_SNIPPETS, SST2)}
