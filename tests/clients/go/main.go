// What OpenAI's client for Go makes of streams that are kept alive; prints it as JSON, one line.
//
// Built twice: by go.mod with a client of today, and by old.mod with the last one that takes a
// comment with a blank line behind it for an event without data, and gives up.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"

	"github.com/openai/openai-go/v3"
	"github.com/openai/openai-go/v3/option"
	"github.com/openai/openai-go/v3/responses"
)

type told struct {
	Chat      string   `json:"chat"`
	ChatError string   `json:"chat_error"`
	Output    string   `json:"output"`
	Error     string   `json:"error"`
	Kinds     []string `json:"kinds"`
	IDs       []string `json:"ids"`
	Numbers   []int64  `json:"numbers"`
}

func main() {
	client := openai.NewClient(option.WithMaxRetries(0)) // OPENAI_BASE_URL, OPENAI_API_KEY
	ctx := context.Background()
	var said told
	if len(os.Args) < 2 || os.Args[1] == "chat" {
		stream := client.Chat.Completions.NewStreaming(ctx, openai.ChatCompletionNewParams{
			Model:    "m",
			Messages: []openai.ChatCompletionMessageParamUnion{openai.UserMessage("hi")},
		})
		for stream.Next() {
			if choices := stream.Current().Choices; len(choices) > 0 {
				said.Chat += choices[0].Delta.Content
			}
		}
		if err := stream.Err(); err != nil {
			said.ChatError = err.Error()
		}
	} else {
		stream := client.Responses.NewStreaming(ctx, responses.ResponseNewParams{
			Model: "m",
			Input: responses.ResponseNewParamsInputUnion{OfString: openai.String("hi")},
		})
		for stream.Next() {
			event := stream.Current()
			said.Kinds = append(said.Kinds, event.Type)
			said.Numbers = append(said.Numbers, event.SequenceNumber)
			if event.Response.ID != "" {
				said.IDs = append(said.IDs, event.Response.ID)
			}
			if event.Type == "response.output_text.delta" {
				said.Output += event.Delta
			}
		}
		if err := stream.Err(); err != nil {
			said.Error = err.Error()
		}
	}
	line, err := json.Marshal(said)
	if err != nil {
		panic(err)
	}
	fmt.Println(string(line))
}
